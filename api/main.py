"""The application that Gunicorn loads: `api.main:app`."""

import logging.config

from api.server.metric_files import use_metric_files

use_metric_files()  # first: the modules below define metrics

from api.app import create_app  # noqa: E402
from api.configuring.settings import load_settings  # noqa: E402
from api.configuring.validation import log_warnings  # noqa: E402
from api.observing.logs import log_config  # noqa: E402

settings = load_settings()
logging.config.dictConfig(log_config(settings))
log_warnings(dict(settings))
app = create_app(settings)
