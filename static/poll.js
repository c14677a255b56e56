// How the page's background steps run: one at a time, paused while the page is hidden, slower when the
// server is slow (at most a third of the time is spent in requests), with back-off when it is away.

const LONGEST_BACKOFF_MS = 15_000;

/**
 * Runs `step(signal)` about every `periodMs` from now on. `report(error)` hears of each outcome; undefined: it went well.
 * `wake()` drops a run in flight and starts at once; `stop()` ends it.
 */
export function poll(step, periodMs, report) {
  let current;
  let timer;
  let failures = 0;
  let stopped = false;

  async function run() {
    const mine = new AbortController();
    current = mine;
    const began = performance.now();
    let wait;
    try {
      await step(mine.signal);
      if (mine.signal.aborted) return;
      failures = 0;
      wait = Math.max(periodMs, 2 * (performance.now() - began));
      report();
    } catch (error) {
      if (mine.signal.aborted) return;
      wait = error.retryAfterMs ?? Math.min(LONGEST_BACKOFF_MS, 1000 * 2 ** failures++);
      report(error);
    }
    current = null;
    if (!stopped && !document.hidden) timer = setTimeout(run, wait);
  }

  function pause() {
    clearTimeout(timer);
    current?.abort();
    current = null;
  }

  function wake() {
    pause();
    if (!stopped && !document.hidden) run();
  }

  function visibilityChanged() {
    if (document.hidden) pause();
    else wake();
  }

  document.addEventListener('visibilitychange', visibilityChanged);
  wake();
  return {
    wake,
    stop() {
      stopped = true;
      pause();
      document.removeEventListener('visibilitychange', visibilityChanged);
    },
  };
}
