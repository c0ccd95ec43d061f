"""The command line's switches for what is asked of models that want more than a prompt: a question, an image, sound."""

from __future__ import annotations

import argparse
from typing import Any


def add(group: argparse._ArgumentGroup) -> None:
    """Add the switches to the workload of a command, for models that answer questions, look at images or listen."""
    group.add_argument("--question", default="", metavar="TEXT", help="question that is answered from the prompt")
    group.add_argument("--image", metavar="FILE", help="image file; without one, a made-up image is used")
    group.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the made-up image (default: what the model is made for)"
    )
    group.add_argument("--audio", metavar="FILE", help="WAV file; without one, made-up sound is used")
    group.add_argument(
        "--audio-seconds", type=float, metavar="S", help="length of the made-up sound (default: what the model is made for)"
    )


def values(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``WorkloadConfig`` that these switches give."""
    return {name: getattr(args, name) for name in ("question", "image", "image_size", "audio", "audio_seconds")}
