-- wrk script: wrk -s load.lua URL -- FILE METHOD START
-- FILE has one path a line; they are sent in order, from line START on, round and round. METHOD PUT sends 64 raw bytes; METHOD POST sends what follows
-- the path after a blank, as JSON.
-- Requests are built before the clock starts: wrk must cost less than the server.
local requests, count, at = {}, 0, 0

function init(args)
  local method = args[2] or "GET"
  local tails = {" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"}
  if method == "PUT" then
    for i = 1, 16 do
      local body = {}
      for k = 1, 64 do body[k] = string.char((i * 37 + k * 101 + i * k) % 256) end
      tails[i] = " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: 64\r\n\r\n"
                 .. table.concat(body)
    end
  end
  for line in io.lines(args[1]) do
    count = count + 1
    if method == "POST" then
      local path, body = line:match("^(%S+) (.*)$")
      requests[count] = "POST " .. path .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
                        .. #body .. "\r\n\r\n" .. body
    else
      requests[count] = method .. " " .. line .. tails[count % #tails + 1]
    end
  end
  at = tonumber(args[3] or "0") % count
end

function request()
  at = at + 1
  if at > count then at = 1 end
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'JSON {"requests":%d,"seconds":%.6f,"errors":%d,"status_errors":%d,"p50_us":%.1f,"p99_us":%.1f,"max_us":%.1f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99), latency.max))
end
