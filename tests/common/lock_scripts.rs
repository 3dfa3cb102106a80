//! Scripts of lock libraries as these send them, with the version or the year that each was taken from.

#![allow(
    clippy::needless_raw_string_hashes,
    reason = "all texts are quoted alike"
)]

/// A library, what its script is called there, and the script.
#[derive(Debug)]
pub struct LockScript {
    pub library: &'static str,
    pub name: &'static str,
    pub text: &'static str,
}

const fn script(library: &'static str, name: &'static str, text: &'static str) -> LockScript {
    LockScript {
        library,
        name,
        text,
    }
}

#[rustfmt::skip] // the texts are as they are
pub const LOCK_SCRIPTS: &[LockScript] = &[
    script("redis-py 8.1.0, its Lock (4.6.0 too)", "release", r#"
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('del', KEYS[1])
        return 1
    "#),
    script("redis-py 8.1.0, its Lock (4.6.0 too)", "extend", r#"
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then
            expiration = 0
        end
        if expiration < 0 then
            return 0
        end

        local newttl = ARGV[2]
        if ARGV[3] == "0" then
            newttl = ARGV[2] + expiration
        end
        redis.call('pexpire', KEYS[1], newttl)
        return 1
    "#),
    script("redis-py 8.1.0, its Lock (4.6.0 too)", "reacquire", r#"
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('pexpire', KEYS[1], ARGV[2])
        return 1
    "#),
    script("redlock 1.2.0 (Python)", "release", r#"
    if redis.call("get",KEYS[1]) == ARGV[1] then
        return redis.call("del",KEYS[1])
    else
        return 0
    end
"#),
    script("redlock-py 1.0.8", "release", r#"
    if redis.call("get",KEYS[1]) == ARGV[1] then
        return redis.call("del",KEYS[1])
    else
        return 0
    end"#),
    script("aioredlock 0.7.3", "set", r#"
    local identifier = redis.call('get', KEYS[1])
    if not identifier or identifier == ARGV[1] then
        return redis.call("set", KEYS[1], ARGV[1], 'PX', ARGV[2])
    else
        return redis.error_reply('ERROR')
    end"#),
    script("aioredlock 0.7.3", "unset", r#"
    local identifier = redis.call('get', KEYS[1])
    if not identifier then
        return redis.status_reply('OK')
    elseif identifier == ARGV[1] then
        return redis.call("del", KEYS[1])
    else
        return redis.error_reply('ERROR')
    end"#),
    script("aioredlock 0.7.3", "ttl", r#"
    local identifier = redis.call('get', KEYS[1])
    if not identifier then
        return redis.error_reply('ERROR')
    elseif identifier == ARGV[1] then
        return redis.call("TTL", KEYS[1])
    else
        return redis.error_reply('ERROR')
    end"#),
    script("aiocache 0.12.3 (0.11.1 too)", "release", r#"if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"#),
    script("cashews 7.6.0 (5.3.0 too)", "unlock", r#"
if redis.call("GET", KEYS[1]) == ARGV[1] then
    return redis.call("DEL", KEYS[1])
else
    return 0
end
"#),
    script("sherlock 0.4.1", "acquire", r#"
    local result = redis.call('SETNX', KEYS[1], ARGV[1])
    if result == 1 and ARGV[2] ~= -1 then
        redis.call('EXPIRE', KEYS[1], ARGV[2])
    end
    return result
    "#),
    script("sherlock 0.4.1", "release", r#"
    local result = 0
    if redis.call('GET', KEYS[1]) == ARGV[1] then
        redis.call('DEL', KEYS[1])
        result = 1
    end
    return result
    "#),
    script("sherlock 0.4.1", "renew", r#"
    local result = 0
    if redis.call('GET', KEYS[1]) == ARGV[1] then
        if ARGV[2] ~= -1 then
            redis.call('EXPIRE', KEYS[1], ARGV[2])
        else
            redis.call('PERSIST', KEYS[1])
        end
        result = 1
    end
    return result
    "#),
    script("rq 3.0.0", "acquire", r#"
    -- KEYS[1] = lock key
    -- ARGV[1] = owner token
    -- ARGV[2] = TTL in seconds
    -- returns 1 = acquired, 2 = refreshed, 0 = taken by another owner
    local value = redis.call('GET', KEYS[1])
    if not value then
        redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
        return 1
    elseif value == ARGV[1] then
        redis.call('EXPIRE', KEYS[1], ARGV[2])
        return 2
    end
    return 0
"#),
    script("rq 3.0.0", "release", r#"
    -- KEYS[1] = lock key
    -- ARGV[1] = owner token
    -- returns 1 = deleted, 0 = not owned (absent or taken by another owner, left untouched)
    if redis.call('GET', KEYS[1]) == ARGV[1] then
        return redis.call('DEL', KEYS[1])
    end
    return 0
"#),
    script("pottery 3.0.1 (2.3.7 too)", "acquired", r#"
                if redis.call('get', KEYS[1]) == ARGV[1] then
                    local pttl = redis.call('pttl', KEYS[1])
                    return (pttl > 0) and pttl or 0
                else
                    return 0
                end
            "#),
    script("pottery 3.0.1 (2.3.7 too)", "extend", r#"
                if redis.call('get', KEYS[1]) == ARGV[1] then
                    return redis.call('pexpire', KEYS[1], ARGV[2])
                else
                    return 0
                end
            "#),
    script("pottery 3.0.1 (2.3.7 too)", "release", r#"
                if redis.call('get', KEYS[1]) == ARGV[1] then
                    return redis.call('del', KEYS[1])
                else
                    return 0
                end
            "#),
    script("coredis 6.9.0", "release", r#"-- KEYS[1] - lock name
-- ARGS[1] - token
-- return 1 if the lock was released, otherwise 0

local token = redis.call('get', KEYS[1])
if not token or token ~= ARGV[1] then
    return 0
end
redis.call('del', KEYS[1])
return 1
"#),
    script("coredis 6.9.0", "extend", r#"-- KEYS[1] - lock name
-- ARGS[1] - token
-- ARGS[2] - additional milliseconds
-- return 1 if the locks time was extended, otherwise 0

local token = redis.call('get', KEYS[1])
if not token or token ~= ARGV[1] then
    return 0
end
local expiration = redis.call('pttl', KEYS[1])
if not expiration then
    expiration = 0
end
if expiration < 0 then
    return 0
end
redis.call('pexpire', KEYS[1], expiration + ARGV[2])
return 1
"#),
    script("redlock 5.0.0-beta.2 (npm)", "acquire", r#"
  -- Return 0 if an entry already exists.
  for i, key in ipairs(KEYS) do
    if redis.call("exists", key) == 1 then
      return 0
    end
  end

  -- Create an entry for each provided key.
  for i, key in ipairs(KEYS) do
    redis.call("set", key, ARGV[1], "PX", ARGV[2])
  end

  -- Return the number of entries added.
  return #KEYS
"#),
    script("redlock 5.0.0-beta.2 (npm)", "extend", r#"
  -- Return 0 if an entry exists with a *different* lock value.
  for i, key in ipairs(KEYS) do
    if redis.call("get", key) ~= ARGV[1] then
      return 0
    end
  end

  -- Update the entry for each provided key.
  for i, key in ipairs(KEYS) do
    redis.call("set", key, ARGV[1], "PX", ARGV[2])
  end

  -- Return the number of entries updated.
  return #KEYS
"#),
    script("redlock 5.0.0-beta.2 (npm)", "release", r#"
  local count = 0
  for i, key in ipairs(KEYS) do
    -- Only remove entries for *this* lock value.
    if redis.call("get", key) == ARGV[1] then
      redis.pcall("del", key)
      count = count + 1
    end
  end

  -- Return the number of entries removed.
  return count
"#),
    script("redlock 4.2.0 (npm)", "acquire", r#"
	-- Return 0 if an entry already exists.
	for i, key in ipairs(KEYS) do
		if redis.call("exists", key) == 1 then
			return 0
		end
	end

	-- Create an entry for each provided key.
	for i, key in ipairs(KEYS) do
		redis.call("set", key, ARGV[1], "PX", ARGV[2])
	end

	-- Return the number of entries added.
	return #KEYS
"#),
    script("redlock 4.2.0 (npm)", "extend", r#"
	-- Return 0 if an entry exists with a *different* lock value.
	for i, key in ipairs(KEYS) do
		if redis.call("get", key) ~= ARGV[1] then
			return 0
		end
	end

	-- Update the entry for each provided key.
	for i, key in ipairs(KEYS) do
		redis.call("set", key, ARGV[1], "PX", ARGV[2])
	end

	-- Return the number of entries updated.
	return #KEYS
"#),
    script("redlock 4.2.0 (npm)", "release", r#"
	local count = 0
	for i, key in ipairs(KEYS) do
		-- Only remove entries for *this* lock value.
		if redis.call("get", key) == ARGV[1] then
			redis.pcall("del", key)
			count = count + 1
		end
	end

	-- Return the number of entries removed.
	return count
"#),
    script("redlock 3.1.2 (npm)", "acquire", r#"return redis.call("set", KEYS[1], ARGV[1], "NX", "PX", ARGV[2])"#),
    script("redlock 3.1.2 (npm)", "extend", r#"if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end"#),
    script("redlock 3.1.2 (npm)", "release", r#"if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end"#),
    script("redis-semaphore 5.8.0, its Mutex (4.1.0 too)", "release", r#"
  local key = KEYS[1]
  local identifier = ARGV[1]

  if redis.call('get', key) == identifier then
    return redis.call('del', key)
  end

  return 0
  "#),
    script("redis-semaphore 5.8.0, its Mutex", "refresh", r#"
  local key = KEYS[1]
  local identifier = ARGV[1]
  local lockTimeout = ARGV[2]

  local value = redis.call('get', key)

  if value == identifier then
    redis.call('pexpire', key, lockTimeout)
    return 1
  end

  return 0
  "#),
    script("redis-semaphore 4.1.0, its Mutex", "refresh", r#"
  local key = KEYS[1]
  local identifier = ARGV[1]
  local lockTimeout = ARGV[2]

  local value = redis.call('get', key)

  if value == identifier then
    redis.call('pexpire', key, lockTimeout)
    return 1
  elseif value == false then
    redis.call('set', key, identifier)
    redis.call('pexpire', key, lockTimeout)
    return 1
  end

  return 0
  "#),
    script("@microfleet/ioredis-lock 6.0.1 (ioredis-lock 4.0.0 too)", "release", r#"
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0"#),
    script("@microfleet/ioredis-lock 6.0.1 (ioredis-lock 4.0.0 too)", "extend", r#"
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("PEXPIRE", KEYS[1], ARGV[2])
end
return 0
"#),
    script("@verrou/core 0.5.2", "release", r#"
      if redis.call("get", KEYS[1]) == ARGV[1] then
        return redis.call("del", KEYS[1])
      else
        return 0
      end
    "#),
    script("node-redis-warlock 1.0.2", "parityDel", r#"--
-- Delete a key if content is equal
--
-- KEYS[1]   - key
-- ARGV[1]   - content
local key     = KEYS[1]
local content = ARGV[1]

local value = redis.call('get', key)

if value == content then
  return redis.call('del', key);
end

return 0
"#),
    script("node-redis-warlock 1.0.2", "parityRelock", r#"--
-- Extend the key if content is equal
-- This will extend the lock on the
--
-- KEYS[1]   - key
-- KEYS[2]   - content
-- KEYS[3]   - lock id
local key = KEYS[1]
local ttl = KEYS[2]
local id  = KEYS[3]

local value = redis.call('GET', key)

if value == id then
  return redis.call('SET', key, id, 'PX', ttl, 'XX');
else
  return 0
end"#),
    script("redsync 4.17.0 (Go)", "deleteScript", r#"
	local val = redis.call("GET", KEYS[1])
	if val == ARGV[1] then
		return redis.call("DEL", KEYS[1])
	elseif val == false then
		return -1
	else
		return 0
	end
"#),
    script("redsync 4.17.0 (Go)", "touchWithSetNXScript", r#"
	if redis.call("GET", KEYS[1]) == ARGV[1] then
		return redis.call("PEXPIRE", KEYS[1], ARGV[2])
	elseif redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2], "NX") then
		return 1
	else
		return 0
	end
"#),
    script("redsync 4.17.0 (Go)", "touchScript", r#"
	if redis.call("GET", KEYS[1]) == ARGV[1] then
		return redis.call("PEXPIRE", KEYS[1], ARGV[2])
	else
		return 0
	end
"#),
    script("redsync 4.9.4 (Go)", "deleteScript", r#"
	if redis.call("GET", KEYS[1]) == ARGV[1] then
		return redis.call("DEL", KEYS[1])
	else
		return 0
	end
"#),
    script("bsm/redislock 0.10.0 (Go)", "obtain", r#"-- obtain.lua: arguments => [value, tokenLen, ttl]
-- Obtain.lua try to set provided keys's with value and ttl if they do not exists.
-- Keys can be overriden if they already exists and the correct value+tokenLen is provided. 

local function pexpire(ttl)
	-- Update keys ttls.
	for _, key in ipairs(KEYS) do
		redis.call("pexpire", key, ttl)
	end
end

-- canOverrideLock check either or not the provided token match
-- previously set lock's tokens.
local function canOverrideKeys() 
	local offset = tonumber(ARGV[2])

	for _, key in ipairs(KEYS) do
		if redis.call("getrange", key, 0, offset-1) ~= string.sub(ARGV[1], 1, offset) then
			return false
		end
	end
	return true
end

-- Prepare mset arguments.
local setArgs = {}
for _, key in ipairs(KEYS) do
	table.insert(setArgs, key)
	table.insert(setArgs, ARGV[1])
end

if redis.call("msetnx", unpack(setArgs)) ~= 1 then
	if canOverrideKeys() == false then
		return false
	end
	redis.call("mset", unpack(setArgs))
end

pexpire(ARGV[3])
return redis.status_reply("OK")"#),
    script("bsm/redislock 0.10.0 (Go)", "pttl", r#"-- pttl.lua: => Arguments: [value]
-- pttl.lua returns provided keys's ttls if all their values match the input. 

-- Check all keys values matches provided input.
local values = redis.call("mget", unpack(KEYS))
for i, _ in ipairs(KEYS) do
	if values[i] ~= ARGV[1] then
		return false
	end
end

-- Find and return shortest TTL among keys.
local minTTL = 0
for _, key in ipairs(KEYS) do
	local ttl = redis.call("pttl", key)
	-- Note: ttl < 0 probably means the key no longer exists.
	if ttl > 0 and (minTTL == 0 or ttl < minTTL) then
		minTTL = ttl
	end
end
return minTTL"#),
    script("bsm/redislock 0.10.0 (Go)", "refresh", r#"-- refresh.lua: => Arguments: [value, ttl]
-- refresh.lua refreshes provided keys's ttls if all their values match the input. 

-- Check all keys values matches provided input.
local values = redis.call("mget", unpack(KEYS))
for i, _ in ipairs(KEYS) do
	if values[i] ~= ARGV[1] then
		return false
	end
end

-- Update keys ttls.
for _, key in ipairs(KEYS) do
	redis.call("pexpire", key, ARGV[2]) 
end

return redis.status_reply("OK")"#),
    script("bsm/redislock 0.10.0 (Go)", "release", r#"-- release.lua: => Arguments: [value]
-- Release.lua deletes provided keys if all their values match the input. 

-- Check all keys values matches provided input.
local values = redis.call("mget", unpack(KEYS))
for i, _ in ipairs(KEYS) do
	if values[i] ~= ARGV[1] then
		return false
	end
end

-- Delete keys.
redis.call("del", unpack(KEYS))

return redis.status_reply("OK")"#),
    script("bsm/redislock 0.9.4 (Go)", "refresh", r#"if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end"#),
    script("bsm/redislock 0.9.4 (Go)", "release", r#"if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end"#),
    script("bsm/redislock 0.9.4 (Go)", "pttl", r#"if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pttl", KEYS[1]) else return -3 end"#),
    script("bsm/redislock 0.9.4 (Go)", "obtain", r#"
if redis.call("set", KEYS[1], ARGV[1], "NX", "PX", ARGV[3]) then return redis.status_reply("OK") end

local offset = tonumber(ARGV[2])
if redis.call("getrange", KEYS[1], 0, offset-1) == string.sub(ARGV[1], 1, offset) then return redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[3]) end
"#),
    script("RedLock.net of 2022", "extend", r#"local currentVal = redis.call('get', KEYS[1])
if (currentVal == false) then
	return redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) and 1 or 0
elseif (currentVal == ARGV[1]) then
	return redis.call('pexpire', KEYS[1], ARGV[2])
else
	return -1
end"#),
    script("RedLock.net of 2022", "unlock", r#"if redis.call('get', KEYS[1]) == ARGV[1] then
	return redis.call('del', KEYS[1])
else
	return 0
end"#),
    script("Spring Integration, RedisLockRegistry", "obtain", r#"local lockClientId = redis.call('GET', KEYS[1])
if lockClientId == ARGV[1] then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
	return true
elseif not lockClientId then
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
	return true
end
return false
"#),
    script("Spring Integration, RedisLockRegistry", "renew", r#"if (redis.call('GET', KEYS[1]) == ARGV[1]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
	return true
end
return false
"#),
    script("Spring Integration, RedisLockRegistry", "unlock", r#"local lockClientId = redis.call('GET', KEYS[1])
if lockClientId == ARGV[1] then
	redis.call('UNLINK', KEYS[1])
	return true
end
return false
"#),
    script("ShedLock, safe updates", "release", r#"if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end
"#),
    script("ShedLock, safe updates", "extend", r#"if redis.call('get', KEYS[1]) == ARGV[1] then
   return redis.call('pexpire', KEYS[1], ARGV[2])
else
   return 0
end
"#),
    script("Symfony Lock of 2021", "save", r#"
            if redis.call("GET", KEYS[1]) == ARGV[1] then
                return redis.call("PEXPIRE", KEYS[1], ARGV[2])
            elseif redis.call("SET", KEYS[1], ARGV[1], "NX", "PX", ARGV[2]) then
                return 1
            else
                return 0
            end
        "#),
    script("Symfony Lock of 2018", "save", r#"
            if redis.call("GET", KEYS[1]) == ARGV[1] then
                return redis.call("PEXPIRE", KEYS[1], ARGV[2])
            else
                return redis.call("set", KEYS[1], ARGV[1], "NX", "PX", ARGV[2])
            end
        "#),
    script("Laravel, its cache locks", "release", r#"if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end"#),
    script("redlock-rb (Ruby)", "unlock", r#"      if redis.call("get",KEYS[1]) == ARGV[1] then
        return redis.call("del",KEYS[1])
      else
        return 0
      end
"#),
    script("redlock-rb (Ruby)", "lock", r#"      if (redis.call("exists", KEYS[1]) == 0 and ARGV[3] == "yes") or redis.call("get", KEYS[1]) == ARGV[1] then
        return redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2])
      end
"#),
    script("redlock-rb (Ruby)", "pttl", r#"      return { redis.call("get", KEYS[1]), redis.call("pttl", KEYS[1]) }
"#),
];

/// The text of the first library whose name begins so.
pub fn lock_script(library: &str, name: &str) -> &'static str {
    let mut scripts = LOCK_SCRIPTS.iter();
    let found = scripts.find(|script| script.library.starts_with(library) && script.name == name);
    found.expect("a script of that name").text
}
