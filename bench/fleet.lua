-- What ship number n says in its report number k. fleet.py says the same.

local fleet = {}

function fleet.report(n, k)
  local harbour = n % 499
  local x = harbour * 73 % 340 - 170 + n * 31 % 2000 / 1000 + k * 17 % 1000 / 1e5
  local y = harbour * 37 % 120 - 60 + n * 57 % 2000 / 1000 + k * 29 % 1000 / 1e5
  return string.format(
    '{"type":"Feature","id":"s%07d","geometry":{"type":"Point","coordinates":[%.5f,%.5f]},"properties":'
      .. '{"name":"SHIP NUMBER %d","callsign":"C%d","seq":%d,"status":%d,"speed":%.1f,"course":%.1f,"heading":%d,'
      .. '"seen":"2022-01-03T00:%02d:%02dZ"}}',
    n, x, y, n, n, k, n % 16, k % 300 / 10, k * 7 % 3600 / 10, k % 360, k / 60 % 60, k % 60)
end

-- Random numbers of a thread (Lehmer's), in the same sequence in every run.
function fleet.random(thread)
  local x = thread + 1
  return function()
    x = x * 16807 % 2147483647
    return x
  end
end

-- Gathers what the threads have counted and prints it as JSON.
local threads = {}

function fleet.setup(thread)
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

function fleet.done(summary, latency)
  local answered, failed, example = {}, 0, "null"
  for i, thread in ipairs(threads) do
    answered[i] = thread:get("answered")
    failed = failed + thread:get("failed")
    local e = thread:get("example")
    if e ~= "" then example = string.format("%q", e) end
  end
  local e = summary.errors
  print(string.format('RESULT {"seconds":%f,"requests":%d,"p50_us":%d,"p99_us":%d,"answered":[%s],"failed":%d,"example":%s}',
    summary.duration / 1e6, summary.requests, latency:percentile(50), latency:percentile(99),
    table.concat(answered, ","), failed + e.connect + e.read + e.write + e.timeout, example:gsub("\\\n", "\\n")))
end

return fleet
