"""What Gunicorn loads: `api.main:app`."""

import logging.config

from api.app import create_app
from api.logs import log_config
from api.settings import load_settings

settings = load_settings()
logging.config.dictConfig(log_config(settings))
app = create_app(settings)
