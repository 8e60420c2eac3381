-- Index entries: a list has index, score, member, three by three. What was entered is kept packed
-- with its document or execution, so that it can be taken out again.

local function enter_indexes(old, list)
  local entries, kept, at = {}, {}, 0
  for from = 1, #list, 3 do
    local index, member = list[from], list[from + 2]
    entries[at + 1], entries[at + 2], at = index, member, at + 2
    kept[#index .. ':' .. index .. member] = true
  end
  if old and old ~= '' then
    local former = cmsgpack.unpack(old)
    for from = 1, #former, 2 do
      local index, member = former[from], former[from + 1]
      if not kept[#index .. ':' .. index .. member] then
        redis.call('ZREM', INDEX .. index, member)
      end
    end
  end
  for from = 1, #list, 3 do
    redis.call('ZADD', INDEX .. list[from], list[from + 1], list[from + 2])
  end
  return at > 0 and cmsgpack.pack(entries) or ''
end
