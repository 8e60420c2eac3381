-- Large fields that an execution was created with are kept once, beside its outputs, for itself and
-- for all checkpoints of it. A commit that writes such a field writes it into the execution.
-- Answers what is to be remembered in it: their names, packed, or ''.

local function keep_constants(id, flat)
  if #flat == 0 then return '' end
  if redis.call('EXISTS', CONSTANTS .. id) == 1 then
    -- Those of a former execution of this id, of which there is a checkpoint.
    for at = 1, #flat, 2 do
      redis.call('HSET', EXECUTION .. id, '.' .. flat[at], flat[at + 1])
    end
    return ''
  end
  local names = {}
  for at = 1, #flat, 2 do names[#names + 1] = flat[at] end
  set_fields(CONSTANTS .. id, flat)
  return cmsgpack.pack(names)
end
