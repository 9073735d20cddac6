"""The script whose tasks are timed."""

from __future__ import annotations

from typing import Any


def main(params: dict[str, Any], context: object) -> dict[str, Any]:
    """Does next to nothing."""
    return {"item": params["item"], "ok": True}
