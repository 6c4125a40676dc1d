"""The names of the tasks of webhooks; worker/webhooks/tasks.py is what they do."""

DELIVER_WEBHOOKS = "webhooks.deliver"
