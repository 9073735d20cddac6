"""What components say about themselves."""

from miniflow.status import ComponentStatus, HealthStatus

__all__ = ["ComponentStatus", "HealthStatus"]
