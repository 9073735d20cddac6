import json


class AddNumbers:
    def run(self, context):
        first = context.get("first", 0)
        second = context.get("second", 0)
        if not isinstance(first, (int, float)):
            raise ValueError("first is not a number")
        return json.dumps({"sum": first + second})


def module():
    return AddNumbers()
