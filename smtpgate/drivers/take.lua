-- All that an event asks of the limits, for many events in one atomic call, each of them all or nothing.
--
-- KEYS     the distinct keys of all questions; a question names them by number.
-- ARGV[1]  a JSON list of questions, answered in order; drivers/redisscript.py writes them:
--            ["take", mode, charges, claims, checks]   mode: 0 look, 1 look but count a refusal, 2 debit
--              charge  [key, rate, burst, cost] and, where it has any, its terms:
--                      {shadow: 1, hold, queued: 1, member: [key, member], penalty: [...]}
--              claim   [key, amount, holder, lease, terms]
--              check   [key, [limits whose ban counts]]
--              penalty [ban's key, note, seconds, key of the refusals' bucket or 0, denials, within, seconds, note]
--            ["give", charges]                         put the costs back
--            ["release", [[key, holder], ...]]
--            ["renew", lease, [[key, holder], ...]]
--            ["note", key, member, seconds, keep]
--            ["seen", key, member]
-- Reply    one text, the answers with "\29" between them: one reply is cheaper to read than many. take: "passed wait
--          balance ... free ...", and a line for each particular: "m i" charge i's member was seen before, "e i" the
--          refusal of item i (charges, then claims) is an escalated one, "b i seconds note" check i has found a ban.
--          seen: "1" or "0". Others: "".
--
-- A bucket is a hash: tokens at the time ts (Unix seconds), rate and cap of the last decision that wrote it, and
-- denied, the refusals since the key was made. A key that is missing is a full bucket, so every key expires when it
-- would be full, and its TTL reads as that time. Slots, members and networks are sorted sets of deadlines.

-- Tokens; as in policy/bucket.py: a client that waits exactly as long as it was told must pass.
local SLACK = 1e-9
-- A key outlives what it holds by this much, so that no rounding makes a bucket full early.
local SPARE_MS = 1000
-- A year and a day, within PEXPIRE's range whatever the rate. A bucket that needs longer is forgotten then, and full.
local MAX_TTL_MS = 366 * 24 * 3600 * 1000
-- As in policy/store.py.
local SLOT_WAIT, MAX_MEMBERS = 1, 1024
local LOOK, DEBIT = 0, 2

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local stamp = string.format('%d.%06d', time[1], time[2])

-- Plain decimals, never an exponent: operators read them. A nano-token is far below any cost.
local function plain(number)
  local text = string.gsub(string.format('%.9f', number), '0+$', '')
  return (string.gsub(text, '%.$', ''))
end

local function exact(number)
  return number == 0 and '0' or string.format('%.17g', number)
end

local function ttl(seconds)
  return string.format('%d', math.min(math.ceil(seconds * 1000) + SPARE_MS, MAX_TTL_MS))
end

-- Buckets: each is read once and written once, however many decisions name it.

local buckets = {}
local function bucket(index)
  local found = buckets[index]
  if not found then
    local fields = redis.call('HMGET', KEYS[index], 'tokens', 'ts')
    found = {tokens = tonumber(fields[1]) or math.huge, ts = tonumber(fields[2]) or now, denied = 0}
    -- A clock that went back (failover to another master) adds nothing. From here on it counts, or nobody who is
    -- refused would get a token before it is where it was.
    found.moved = found.ts > now
    found.ts = math.min(found.ts, now)
    buckets[index] = found
  end
  return found
end

-- What a bucket holds now: a pure refill. A new burst below the balance cuts it.
local function balance(b, rate, burst)
  return math.min(burst, b.tokens + (now - b.ts) * rate)
end

-- Never above burst: a negative cost gives tokens back.
local function spend(b, tokens, rate, burst, cost)
  b.tokens, b.ts, b.paid = math.max(0, math.min(burst, tokens - cost)), now, true
  b.rate, b.burst = rate, burst
  return b.tokens
end

local function write()
  for index, b in pairs(buckets) do
    if b.rate then
      local key = KEYS[index]
      -- A refusal leaves tokens and ts alone: written at every attempt, a slow refill would drown in rounding.
      if b.paid or b.moved or b.tokens == math.huge then
        redis.call('HSET', key, 'tokens', plain(math.min(b.tokens, b.burst)), 'ts', stamp, 'rate', plain(b.rate),
                   'cap', plain(b.burst))
      else
        redis.call('HSET', key, 'rate', plain(b.rate), 'cap', plain(b.burst))
      end
      if b.denied > 0 then
        redis.call('HINCRBY', key, 'denied', b.denied)
      end
      local missing = b.burst - balance(b, b.rate, b.burst)
      redis.call('PEXPIRE', key, ttl(missing > 0 and missing / b.rate or 0))
    end
  end
end

-- Sorted sets of deadlines.

-- Members whose deadline has passed are forgotten: a set that is written again and again would keep them for ever.
local function expire(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', stamp)
end

local function put(index, member, seconds, keep)
  local key, deadline = KEYS[index], now + math.min(seconds, MAX_TTL_MS / 1000)
  redis.call('ZADD', key, string.format('%.6f', deadline), member)
  if keep then
    expire(key)
    redis.call('ZREMRANGEBYRANK', key, 0, -keep - 1)
  end
  -- The newest is not always the last to go: an edit may have made the time shorter.
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  redis.call('PEXPIRE', key, ttl(tonumber(last[2]) - now))
end

local function holds(index, member)
  local deadline = redis.call('ZSCORE', KEYS[index], member)
  return deadline and tonumber(deadline) > now
end

local function places(index, amount)
  expire(KEYS[index])
  return math.max(0, amount - redis.call('ZCARD', KEYS[index]))
end

-- Counts a refusal where the limit escalates, and bans. True where the refusal is an escalated one.
local function punish(penalty)
  local ban, note, escalated = penalty[3], penalty[2], false
  if penalty[4] ~= 0 then
    local b, burst = bucket(penalty[4]), penalty[5]
    local rate = burst / penalty[6]
    local tokens = balance(b, rate, burst)
    escalated = tokens + SLACK < 1
    -- Whoever goes on finds it empty: else every token that comes back meanwhile would be one mild answer.
    spend(b, tokens, rate, burst, escalated and tokens or 1)
    if escalated and penalty[7] > 0 then
      ban, note = penalty[7], penalty[8]
    end
  end
  local ms = math.ceil(ban * 1000)
  if ms > 0 then
    -- The longer ban stands; one without an end (-1), by an operator's hand, is the longest.
    local left = redis.call('PTTL', KEYS[penalty[1]])
    if left ~= -1 and left < ms then
      redis.call('SET', KEYS[penalty[1]], note, 'PX', string.format('%d', ms))
    end
  end
  return escalated
end

local NONE = {}

local function take(mode, charges, claims, checks)
  local banned, longest, hold, particulars = false, 0, 0, {}
  for i, check in ipairs(checks) do
    local note = redis.call('GET', KEYS[check[1]])
    if note then
      local by, left = string.match(note, '^[^ /]*'), redis.call('PTTL', KEYS[check[1]])
      for _, limit in ipairs(check[2]) do
        banned = banned or limit == by
      end
      -- Whatever an operator has put there by hand stays on its line.
      local shown = string.gsub(note, '%c', ' ')
      local rest = left < 0 and 'inf' or exact(left / 1000)
      particulars[#particulars + 1] = string.format('\nb %d %s %s', i - 1, rest, shown)
    end
  end

  for i, c in ipairs(charges) do
    local rate, burst, cost, terms = c[2], c[3], c[4], c[5] or NONE
    if terms.member and holds(terms.member[1], terms.member[2]) then
      cost = 0
      particulars[#particulars + 1] = '\nm ' .. i - 1
    end
    local b = bucket(c[1])
    local tokens, wait = balance(b, rate, burst), 0
    if tokens + SLACK < cost then
      wait = (cost > burst or rate <= 0) and math.huge or (cost - tokens) / rate
    elseif terms.queued and cost > 0 then
      wait = rate <= 0 and math.huge or cost / rate
    end
    if wait > longest and not terms.shadow then
      longest, hold = wait, terms.hold or 0
    end
    c.b, c.tokens, c.wait, c.cost, c.terms = b, tokens, wait, cost, terms
  end
  for _, c in ipairs(claims) do
    c.free = c[5].queued and 0 or places(c[1], c[2])
    if c.free == 0 and not c[5].shadow and longest < SLOT_WAIT then
      longest, hold = SLOT_WAIT, c[5].hold or 0
    end
  end

  -- A refusal whose words the client will not hear yet, because the session may be held, changes nothing at all.
  local passed = not banned and longest == 0
  local final = passed or banned or longest > hold
  local refused = mode > LOOK and final and not passed and not banned
  local reply = {passed and '1' or '0'}
  for i, c in ipairs(charges) do
    local shadow = c.terms.shadow
    if mode == DEBIT and c.wait == 0 and (passed or (shadow and final)) then
      if c.cost ~= 0 then
        c.tokens = spend(c.b, c.tokens, c[2], c[3], c.cost)
        if c.terms.member then
          put(c.terms.member[1], c.terms.member[2], c[2] > 0 and c[3] / c[2] or math.huge, MAX_MEMBERS)
        end
      end
    elseif c.wait > 0 and ((shadow and mode == DEBIT and final) or (refused and not shadow)) then
      c.b.denied, c.b.rate, c.b.burst = c.b.denied + 1, c[2], c[3]
      if c.terms.penalty and not shadow and punish(c.terms.penalty) then
        particulars[#particulars + 1] = '\ne ' .. i - 1
      end
    end
    reply[#reply + 1] = exact(c.wait)
    reply[#reply + 1] = exact(c.tokens)
  end
  for i, c in ipairs(claims) do
    if c.free > 0 then
      if mode == DEBIT and passed then
        put(c[1], c[3], c[4])
      end
    elseif refused and c[5].penalty and not c[5].shadow and punish(c[5].penalty) then
      particulars[#particulars + 1] = '\ne ' .. #charges + i - 1
    end
    reply[#reply + 1] = string.format('%d', c.free)
  end
  return table.concat(reply, ' ') .. table.concat(particulars)
end

local answer = {take = take}

function answer.give(charges)
  for _, c in ipairs(charges) do
    local b = bucket(c[1])
    if b.tokens ~= math.huge then
      spend(b, balance(b, c[2], c[3]), c[2], c[3], -c[4])
    end
  end
  return ''
end

function answer.release(slots)
  for _, slot in ipairs(slots) do
    redis.call('ZREM', KEYS[slot[1]], slot[2])
  end
  return ''
end

function answer.renew(lease, slots)
  for _, slot in ipairs(slots) do
    put(slot[1], slot[2], lease)
  end
  return ''
end

function answer.note(key, member, seconds, keep)
  put(key, member, seconds, keep)
  return ''
end

function answer.seen(key, member)
  return holds(key, member) and '1' or '0'
end

local replies = {}
for i, question in ipairs(cjson.decode(ARGV[1])) do
  replies[i] = answer[question[1]](unpack(question, 2))
end
write()
return table.concat(replies, '\29')
