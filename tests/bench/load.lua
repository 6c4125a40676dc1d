-- Connects to the address in BENCH_ADDRESS under the name in the URL, so that TLS and Host are those of a client.
function wrk.resolve(_, service)
   wrk.addrs = wrk.lookup(os.getenv("BENCH_ADDRESS"), service)
end

function done(summary, latency, _)
   local failed = summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout
   io.write(string.format(
      '{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}\n',
      summary.requests, summary.duration / 1e6, failed,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
   ))
end
