-- GET of the paths in a file, one a line, round and round. Argument: the file.

package.path = package.path .. ";bench/?.lua"
local fleet = require "fleet"
setup, done = fleet.setup, fleet.done
answered, failed, example = 0, 0, ""

local requests, sent = {}, 0

function init(args)
  for path in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  sent = number * 37
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function response(status, _, body)
  answered = answered + 1
  if status >= 300 then failed, example = failed + 1, body end
end
