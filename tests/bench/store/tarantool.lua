-- tarantool: the load, reads and scans of bench_store in Tarantool's own process, for a row beside the embedded stores: the same names and values, 1000 upserts a
-- transaction, each synced (wal_mode = fsync), one ordered index over the names as bytes. LuaJIT computes the data, so a name or value costs a little more than in bench_store;
-- what that is alone is printed ("data only") and belongs to each rate.
--
--     apt-get install tarantool-common tarantool
--     tarantool tests/bench/store/tarantool.lua DIRECTORY [memtx|vinyl] [PAIRS]      DIRECTORY is made, and must not be there
--
-- memtx keeps all pairs in memory beside its log; vinyl is a log-structured tree on disk.
local ffi, fio, clock = require('ffi'), require('fio'), require('clock')
local dir, engine, pairs_n = arg[1], arg[2] or 'memtx', tonumber(arg[3] or '1000000')
if dir == nil or fio.path.exists(dir) or not fio.mkdir(dir) then
    io.stderr:write('tarantool.lua: DIRECTORY is missing, or there\n')
    os.exit(2)
end

ffi.cdef [[ struct pair { char ctx[4]; uint8_t name[8]; uint64_t value[8]; }; ]]
local word = ffi.new('uint64_t[1]')
local pair = ffi.new('struct pair')
local seed = 1ULL

local function mix64(x)
    x = x + 0x9E3779B97F4A7C15ULL
    x = bit.bxor(x, bit.rshift(x, 30)) * 0xBF58476D1CE4E5B9ULL
    x = bit.bxor(x, bit.rshift(x, 27)) * 0x94D049BB133111EBULL
    return bit.bxor(x, bit.rshift(x, 31))
end

local function name_of(i)
    word[0] = mix64(i + mix64(seed))
    return 'ctx:' .. ffi.string(word, 8)
end

local function value_of(i)
    pair.value[0] = mix64(bit.bxor(0ULL + i, seed))
    for w = 1, 7 do
        pair.value[w] = mix64(pair.value[w - 1])
    end
    return ffi.string(pair.value, 64)
end

local function written()
    local f = io.open('/proc/self/io')
    local text = f:read('*a')
    f:close()
    return tonumber(text:match('wchar: (%d+)'))
end

local function rate(what, n, seconds)
    print(('%-28s %10.1f k/s'):format(what, n / seconds / 1000))
end

local function timed(what, n, f)
    local t = clock.monotonic()
    f()
    rate(what, n, clock.monotonic() - t)
end

local before = written()
box.cfg{memtx_dir = dir, wal_dir = dir, vinyl_dir = dir, wal_mode = 'fsync', memtx_memory = 1024 * 1024 * 1024, vinyl_cache = 256 * 1024 * 1024,
        log_level = 1, checkpoint_interval = 0, readahead = 16320}
local space = box.schema.space.create('pairs', {engine = engine, format = {{'name', 'string'}, {'value', 'string'}}})
space:create_index('primary', {type = 'tree', parts = {{1, 'string'}}})
print(('%s, %d pairs of 12 + 64 bytes, %s'):format(_TARANTOOL, pairs_n, engine))

timed('data only', pairs_n, function()
    for i = 0, pairs_n - 1 do
        name_of(i)
        value_of(i)
    end
end)
timed('random upsert, 1000 a commit', pairs_n, function()
    for first = 0, pairs_n - 1, 1000 do
        box.begin()
        for i = first, math.min(first + 999, pairs_n - 1) do
            space:replace{name_of(i), value_of(i)}
        end
        box.commit()
    end
end)
box.snapshot() -- what a clean close of the other stores writes
print(('%-28s %10.2f'):format('bytes written a byte', (written() - before) / (pairs_n * 76)))

local reads, r = 300000, 12345ULL
timed('random point read', reads, function()
    for _ = 1, reads do
        r = mix64(r)
        local i = tonumber(r % pairs_n)
        local t = space:get(name_of(i))
        word[0] = mix64(bit.bxor(0ULL + i, seed))
        if t == nil or t[2]:sub(1, 8) ~= ffi.string(word, 8) then
            error('a wrong value')
        end
    end
end)
timed('ordered scan with values', pairs_n, function()
    local n, sum = 0, 0
    for _, t in space:pairs() do
        n = n + 1
        sum = sum + t[1]:byte(12) + t[2]:byte(64)
    end
    if n ~= pairs_n then
        error('not all pairs')
    end
end)
os.exit(0)
