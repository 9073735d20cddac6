"""A script that does as its params say."""

import ctypes
import os
import signal
import sys
import threading
import time


def main(params, context):
    who = {
        "task_id": context.task_id,
        "worker_id": context.worker_id,
        "attempt": context.attempt,
        "pid": os.getpid(),
    }
    do = params.get("do", "who")
    if "note" in params:  # that it was started
        with open(params["note"], "a") as file:
            file.write(f"{os.getpid()}\n")
    if do == "who":
        return who
    if do == "return":
        return params["value"]
    if do == "bytes":
        return bytes(params["size"])
    if do == "raise":
        raise ValueError(params["text"])
    if do == "print":
        print(params["text"])
        print(params["text"].upper(), file=sys.stderr)
        return None
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if do == "kill once" and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if do == "exit":
        os._exit(params["code"])
    if do == "segfault":
        ctypes.string_at(0)
    if do == "recurse":
        return main(params, context)
    if do == "gate":  # runs until the file is there
        context.progress(params.get("done", 0), params.get("total", 0))
        while not os.path.exists(params["gate"]):
            time.sleep(0.002)
        return who
    if do == "obey":  # runs until it is told to stop
        while not context.cancelled:
            time.sleep(0.002)
        raise InterruptedError("told to stop")
    if do == "stubborn":
        while True:
            time.sleep(0.01)
    if do == "unpicklable":
        return threading.Lock()
    return who
