-- What is kept under some keys, as of now, for an operator to read. Writes nothing.
--
-- KEYS   of one kind.
-- ARGV   the kind: "bucket", "places", "seen" or "ban".
-- Reply  the time of this server, Unix seconds, and for each key a list:
--          bucket: tokens ts rate cap denied, as they are written (take.lua says what they mean)
--          places, seen: how many have not expired, and when the first of them will, Unix seconds
--          ban: its note, and the milliseconds that are left

local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])

local read = {}
function read.bucket(key)
  return redis.call('HMGET', key, 'tokens', 'ts', 'rate', 'cap', 'denied')
end
function read.places(key)
  local first = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return {redis.call('ZCOUNT', key, '(' .. now, '+inf'), first[2]}
end
read.seen = read.places
function read.ban(key)
  return {redis.call('GET', key), redis.call('PTTL', key)}
end

local reply = {now}
for i, key in ipairs(KEYS) do
  reply[i + 1] = read[ARGV[1]](key)
end
return reply
