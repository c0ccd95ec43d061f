"""llama.cpp's side of `benchmarks.rival`, run by an interpreter that has llama-cpp-python: needs nothing of Tickscope.

For each line `decode N` or `prefill N` on its standard input it prints the nanoseconds that llama.cpp took, as llama-bench
counts them: N decode steps of one token from an empty cache, or one batch of N tokens; no sampling, no text.
"""

from __future__ import annotations

import ctypes
import sys
import time

import llama_cpp


def main() -> None:
    """Serve."""
    path, threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.use_extra_bufts = "plain" not in sys.argv  # repacked weights for AMX and the like
    model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    print(llama_cpp.llama_print_system_info().decode(), flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter_ns()
        if kind == "prefill":
            _decode(context, list(range(100, 100 + int(count))))
        else:
            for token in range(100, 100 + int(count)):
                _decode(context, [token])
        print(time.perf_counter_ns() - start, flush=True)


def _decode(context: object, tokens: list[int]) -> None:
    array = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch only points to it
    batch = llama_cpp.llama_batch_get_one(array, len(tokens))
    if llama_cpp.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")
    llama_cpp.llama_synchronize(context)


@llama_cpp.llama_log_callback
def _quiet(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """llama.cpp tells a lot."""


if __name__ == "__main__":
    main()
