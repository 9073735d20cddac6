import time


def main(params, context):
    time.sleep(params["seconds"])
    if params.get("broken"):
        raise ConnectionError("no route to " + params["host"])
    return {"host": params["host"], "status": 200}
