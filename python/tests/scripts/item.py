"""A script of a Manager's items: `module()` with `run(context)`."""

import json
import os
import signal
import time


class Step:
    def run(self, context):
        if "error" in context:
            raise RuntimeError(context["error"])
        if context.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        while "gate" in context and not os.path.exists(context["gate"]):
            time.sleep(0.002)
        return json.dumps({"pid": os.getpid(), "number": context.get("number")})


def module():
    return Step()
