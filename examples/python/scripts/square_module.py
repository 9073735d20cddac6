"""A script in the form that `Manager` knows: module() returns an object with run(context)."""

import json


class Square:
    def run(self, context):
        if context["number"] < 0:
            raise ValueError(f"{context['number']} is negative")
        return json.dumps({"square": context["number"] ** 2})


def module():
    return Square()
