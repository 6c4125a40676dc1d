"""Writes the counts in Prometheus' text format, version 0.0.4; the base image has no library."""

from collections.abc import Iterator

from counter.counts import Counts
from counter.tallies import BUCKET_SECONDS, CLASSES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(counts: Counts) -> str:
    """Return the text of /metrics."""
    return "".join(f"{line}\n" for line in _lines(counts))


def _lines(counts: Counts) -> Iterator[str]:
    yield from _header("slipway_requests_total", "counter", "Answers through the front door")
    for slot, tally in counts.totals.items():
        for name, number in zip(CLASSES, tally.classes, strict=True):
            yield f'slipway_requests_total{{slot="{slot}",status="{name}"}} {number}'
    yield from _header(
        "slipway_answer_seconds", "histogram", "Seconds until the answer of a slot began"
    )
    for slot, tally in counts.totals.items():
        total = 0
        for bound, number in zip((*BUCKET_SECONDS, "+Inf"), tally.buckets, strict=True):
            total += number
            yield f'slipway_answer_seconds_bucket{{slot="{slot}",le="{bound}"}} {total}'
        yield f'slipway_answer_seconds_sum{{slot="{slot}"}} {tally.seconds:.6f}'
        yield f'slipway_answer_seconds_count{{slot="{slot}"}} {total}'
    for name, number, text in (
        ("received", counts.received, "Datagrams that arrived"),
        ("malformed", counts.malformed, "Datagrams of another form"),
        ("lost", counts.losses.total, "Requests of nginx whose datagram did not arrive"),
    ):
        yield from _header(f"slipway_datagrams_{name}_total", "counter", text)
        yield f"slipway_datagrams_{name}_total {number}"
    name = "slipway_counter_start_time_seconds"
    yield from _header(name, "gauge", "When the counts began, in seconds since 1970")
    yield f"{name} {counts.started:.3f}"


def _header(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}."
    yield f"# TYPE {name} {kind}"
