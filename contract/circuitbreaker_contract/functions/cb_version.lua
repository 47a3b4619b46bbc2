-- cb_version: which contract is spoken here, by which edition of the library.
--   KEYS   none   ARGS  none   WRITES  no
--   REPLY  {contract_version, library_version, digest}
--   ERRORS none
redis.register_function{function_name = 'cb_version', flags = {'no-writes'}, callback = function()
  return {CONTRACT_VERSION, LIBRARY_VERSION, DIGEST}
end}
