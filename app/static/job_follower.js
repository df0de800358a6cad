import { getJson } from "./api.js";

const POLL_MILLISECONDS = 2_000;
const CHECK_MILLISECONDS = 15_000;

const FINAL = new Set(["succeeded", "failed", "cancelled"]);

/** Whether nothing more happens with a job. */
export function isFinal(job) {
  return FINAL.has(job.state);
}

/** Tells the states of one job, by server-sent events where they arrive and by asking where they do not. */
export class JobFollower {
  #jobId;
  #onJob;
  #onError;
  #events = null;
  #timer = null;
  #stopped = false;

  /** `onJob(job)` gets each state, the last one being final; `onError(error)` what goes wrong with asking. */
  constructor(jobId, onJob, onError) {
    this.#jobId = jobId;
    this.#onJob = onJob;
    this.#onError = onError;
    this.#listen();
    this.#askLater(CHECK_MILLISECONDS);
  }

  stop() {
    this.#stopped = true;
    this.#events?.close();
    clearTimeout(this.#timer);
  }

  get #address() {
    return `/v1/jobs/${encodeURIComponent(this.#jobId)}`;
  }

  #listen() {
    this.#events = new EventSource(`${this.#address}/events`);
    this.#events.addEventListener("job", (event) => this.#tell(JSON.parse(event.data)));
    this.#events.addEventListener("error", () => {
      // Not left to the browser's own attempts: it makes none after an answer that is no stream.
      this.#events.close();
      this.#events = null;
      this.#askLater(0);
    });
  }

  #askLater(milliseconds) {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => this.#ask(), milliseconds);
  }

  /** Also while events arrive, from time to time: a proxy may hold them back in silence. */
  async #ask() {
    try {
      this.#tell(await getJson(this.#address));
    } catch (error) {
      if (!this.#stopped) this.#onError(error);
      if (error.status === 404) this.stop();
    }
    this.#askLater(this.#events ? CHECK_MILLISECONDS : POLL_MILLISECONDS);
  }

  #tell(job) {
    if (this.#stopped) return;
    if (isFinal(job)) this.stop();
    this.#onJob(job);
  }
}
