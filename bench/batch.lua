-- POST of LINES features a request, with random ids; one connection a thread. Arguments: collection, features, threads,
-- bodies of a thread. All bodies are made before the clock runs; a thread sends its own round and round, and every feature of
-- body b (from 1) carries report FIRST + b.

package.path = package.path .. ";bench/?.lua"
local fleet = require "fleet"
setup, done = fleet.setup, fleet.done
answered, failed, example = 0, 0, ""

local LINES, FIRST = 1000, 10000000
local headers = { ["Content-Type"] = "application/x-ndjson" }
local requests, sent = {}, 0

function init(args)
  local path = "/collections/" .. args[1] .. "/items"
  local threads = tonumber(args[3])
  local share = math.floor(tonumber(args[2]) / threads)
  local random = fleet.random(number)
  for b = 1, tonumber(args[4]) do
    local lines = {}
    for i = 1, LINES do
      lines[i] = fleet.report(random() % share * threads + number, FIRST + b)
    end
    lines[LINES + 1] = ""
    requests[b] = wrk.format("POST", path, headers, table.concat(lines, "\n"))
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function response(status, _, body)
  answered = answered + 1
  if status >= 300 or not body:find('"rejected":0', 1, true) then failed, example = failed + 1, body end
end
