"""The first task of workflow.py: splits a file into parts of whole lines."""


def main(params, context):
    with open(params["file"], encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    parts = params["parts"]
    return ["".join(lines[part::parts]) for part in range(parts)]
