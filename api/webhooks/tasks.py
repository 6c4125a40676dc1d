"""The names of the tasks of webhooks; worker/webhooks/tasks.py defines the tasks."""

DELIVER_WEBHOOKS = "webhooks.deliver"
