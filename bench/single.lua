-- PUT of one whole feature a request, to random ids. Arguments: collection, features, threads.
-- Thread t writes the ids n with n % threads == t, and its k-th request carries report k.

package.path = package.path .. ";bench/?.lua"
local fleet = require "fleet"
setup, done = fleet.setup, fleet.done
answered, failed, example = 0, 0, ""

local headers = { ["Content-Type"] = "application/geo+json" }
local k = 0
local random, path, share, threads

function init(args)
  path = "/collections/" .. args[1] .. "/items/s%07d"
  threads = tonumber(args[3])
  share = math.floor(tonumber(args[2]) / threads)
  random = fleet.random(number)
end

function request()
  k = k + 1
  local n = random() % share * threads + number
  return wrk.format("PUT", string.format(path, n), headers, fleet.report(n, k))
end

function response(status, _, body)
  answered = answered + 1
  if status >= 300 then failed, example = failed + 1, body end
end
