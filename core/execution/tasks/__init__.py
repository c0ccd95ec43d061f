"""Forms: how each kind of model is asked, one file per kind."""
