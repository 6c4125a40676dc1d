"""What Gunicorn loads: `api.main:app`."""

import logging.config

from api.app import create_app
from api.logs import log_config
from api.settings import load_settings
from api.validation import log_warnings

settings = load_settings()
logging.config.dictConfig(log_config(settings))
log_warnings(dict(settings))
app = create_app(settings)
