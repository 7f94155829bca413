-- Token buckets: many decisions in one atomic call, each of them all or nothing.
--
-- KEYS   the distinct buckets of all decisions.
-- ARGV   for each decision: "1" to debit or "0" to look, the number n of its charges, and n times
--        the index of a key, rate (tokens a second), burst (tokens), cost (tokens).
--        The charges of one decision have distinct keys; decisions are taken in order.
-- Reply  for each charge, in order: seconds until its bucket could pay ("0" if it could, "inf" if never),
--        and the tokens it holds after the decision. Text, because a Lua number would be cut to an integer.
--
-- A bucket is a hash: tokens at the time ts (Unix seconds), rate and cap of the last decision that wrote it, and
-- denied, the refusals since the key was made. A key that is missing is a full bucket, so every key expires when it
-- would be full, and its TTL reads as that time.

-- Tokens; as in policy/bucket.py: a client that waits exactly as long as it was told must pass.
local SLACK = 1e-9
-- A key outlives its bucket's refill by this much, so that no rounding makes a bucket full early.
local SPARE_MS = 1000
-- A year and a day, within PEXPIRE's range whatever the rate. A bucket that needs longer is forgotten then, and full.
local MAX_TTL_MS = 366 * 24 * 3600 * 1000

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local stamp = string.format('%d.%06d', time[1], time[2])

-- Plain decimals, never an exponent: operators read them. A nano-token is far below any cost.
local function plain(number)
  local text = string.gsub(string.format('%.9f', number), '0+$', '')
  return (string.gsub(text, '%.$', ''))
end

local buckets = {}
local function bucket(index)
  local found = buckets[index]
  if not found then
    local fields = redis.call('HMGET', KEYS[index], 'tokens', 'ts')
    found = {tokens = tonumber(fields[1]) or math.huge, ts = tonumber(fields[2]) or now, denied = 0}
    buckets[index] = found
  end
  return found
end

-- What a bucket holds now: a pure refill. A clock that went back (failover to another master) adds nothing, and
-- a new burst below the balance cuts it.
local function balance(b, rate, burst)
  return math.min(burst, b.tokens + math.max(0, now - b.ts) * rate)
end

local reply = {}
local at = 1
while at <= #ARGV do
  local debit, count = ARGV[at] == '1', tonumber(ARGV[at + 1])
  at = at + 2

  local charges, pays = {}, true
  for i = 1, count do
    local b = bucket(tonumber(ARGV[at]))
    local rate, burst, cost = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 4
    local tokens, wait = balance(b, rate, burst), 0
    if tokens + SLACK < cost then
      pays = false
      wait = (cost > burst or rate <= 0) and math.huge or (cost - tokens) / rate
    end
    charges[i] = {b = b, rate = rate, burst = burst, cost = cost, tokens = tokens, wait = wait}
  end

  for i = 1, count do
    local c = charges[i]
    local b, refused = c.b, debit and c.wait > 0
    if debit and pays then
      -- Never above burst: a negative cost gives tokens back.
      c.tokens = math.max(0, math.min(c.burst, c.tokens - c.cost))
      b.tokens, b.ts, b.paid = c.tokens, now, true
    elseif refused then
      b.denied = b.denied + 1
    end
    if refused or (debit and pays) then
      b.rate, b.burst = c.rate, c.burst
    end
    reply[#reply + 1] = c.wait == 0 and '0' or string.format('%.17g', c.wait)
    reply[#reply + 1] = string.format('%.17g', c.tokens)
  end
end

for index, b in pairs(buckets) do
  if b.rate then
    local key = KEYS[index]
    local fields = {'rate', plain(b.rate), 'cap', plain(b.burst)}
    -- A refusal leaves tokens and ts alone: written at every attempt, a slow refill would drown in rounding.
    if b.paid or b.tokens == math.huge then
      fields = {'tokens', plain(math.min(b.tokens, b.burst)), 'ts', stamp, unpack(fields)}
    end
    redis.call('HSET', key, unpack(fields))
    if b.denied > 0 then
      redis.call('HINCRBY', key, 'denied', b.denied)
    end
    local missing = b.burst - balance(b, b.rate, b.burst)
    local ttl = missing > 0 and missing / b.rate * 1000 or 0
    redis.call('PEXPIRE', key, string.format('%d', math.min(math.ceil(ttl) + SPARE_MS, MAX_TTL_MS)))
  end
end

return reply
