-- wrk: ask for the paths of a file in turn, and print what came of it as one line of JSON at the end.
-- wrk [options] -s load.lua URL -- PATHS_FILE

local requests, turn = {}, 0

function init(args)
   for path in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", path)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "median_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      e.connect + e.read + e.write + e.status + e.timeout
   ))
end
