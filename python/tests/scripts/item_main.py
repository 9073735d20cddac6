"""A script of a Manager's items with `main(params, context)`."""


def main(params, context):
    return {"doubled": params["number"] * 2, "worker": context.worker_id}
