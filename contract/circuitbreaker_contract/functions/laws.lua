-- The library `circuitbreaker`: circuit breakers whose state is shared through Redis. This file opens the joined text.
--
-- Laws (the same stand at the top of rules.py, the pure twin):
--   1. A breaker is ordered by (incarnation, generation, revision). The incarnation is Redis' time in ms when its hash
--      was made, larger than any it resumes from. The generation rises by one when (state, forced, mode) changes or by a
--      reset, and never otherwise. The revision rises with each change of policy.
--   2. A permit and a batch carry (incarnation, generation); an outcome of another pair changes nothing but `late`.
--   3. Closed opens when a trip rule holds and the quorum is met. Open becomes HalfOpen when Redis' time >= openUntil, by
--      whoever asks first. HalfOpen has at most halfOpenLimit live leases.
--   4. HalfOpen closes on the successThreshold-th success of its generation, and opens on its first failure.
--      halfOpenLimit expired leases in one generation without a success open it again.
--   5. An ignored outcome is neither success nor failure and frees its lease. An expired lease frees its slot and never
--      counts as success; its answer in the same generation still counts, once.
--   6. Closing resets attempt, streak and window. Opening by override does not raise attempt. An override ends when Redis'
--      time >= until or the field goes, once: Open -> HalfOpen, Closed -> Closed with counts reset; an `until` already past
--      has no effect at all. Under override Closed, outcomes add to totals only.
--   7. Nothing but the functions writes these keys; each validates everything before its first write and writes the
--      breaker's keys in one block (functions do not roll back).
--   8. One reading of the clock a call. A stored instant is never believed farther ahead than its own length, so that a
--      fail-over to a skewed clock cannot freeze a breaker.
-- Counting: rules are tested after each counted outcome as if it came alone; when one causes a transition the rest of the
-- batch is late. S and L end the streak, F and M lengthen it. In mode Observe the state stays Closed and the same rules
-- run on a shadow, whose probes are the outcomes in order.
--
-- Shape of every function: check the arguments, read, do what is due, do its own work, save, reply.

local CLOSED, OPEN, HALF_OPEN = 'Closed', 'Open', 'HalfOpen'
local ENV = 'env'                     -- owner and uid of a breaker that a client defined from its environment
local MAX_RUN, MAX_RUNS = 1000000, 256
local MAX_HISTORY = 256
local MAX_ENDED_LEASES = 1000         -- how many settled, and how many expired, leases are remembered
local MAX_REPORTERS = 1000
local LONGEST_TEXT = 8192             -- in bytes; nothing of ours is longer, and what others wrote is cut there
local REPORTER_SEEN_MS = 60000        -- a client that reported within it is counted in `reporters`
local REPORTER_KEPT_MS = 600000       -- a client unseen for longer may be forgotten
local FULL_RETRY_MS = 250             -- slots full: nobody waits longer than this before asking again
local BUCKETS = 20                    -- of a time window
local EDGE = 32                       -- letters at an edge of a count window that stand in the hash, at most
local COUNT_QUORUM_MS = 60000         -- how far a count window looks back for reporters of a rate
local KEPT_MS = 3600000               -- probes and reporters of a breaker that nobody uses go after this
