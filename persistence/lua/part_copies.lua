-- A checkpoint's copy of an execution: its fields and rows as they are, with a document about it.
-- What never changes is not copied: the execution is held, and with it its constants.

local function copy_execution(id, checkpoint, document, head, body, entries)
  local holds = held_by(head.holds)
  holds[#holds + 1] = id
  redis.call('COPY', EXECUTION .. id, CHECKPOINT .. checkpoint)
  redis.call('COPY', ROWS .. id, CHECKPOINT_ROWS .. checkpoint)
  redis.call('HSET', CHECKPOINT .. checkpoint, 'h', cmsgpack.pack(holds))
  refer(head.definition)
  hold(holds)
  redis.call('HSET', document, 'b', body, 'v', '1', 'x', enter_indexes(nil, entries))
end
