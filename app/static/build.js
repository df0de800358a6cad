import { getJson, requestJson } from "./api.js";
import { curation } from "./curation.js";
import { byId, counted, element, errorWords, tell, when, withCode } from "./dom.js";
import { duration } from "./duration.js";
import { isFinal, JobFollower } from "./job_follower.js";
import { followed } from "./service.js";

const LOOK_MILLISECONDS = 10_000;
const PATIENCE_IN_QUEUE_MILLISECONDS = 10_000;

/** Dispatched on the document when a build has ended, and again when the service has followed it. */
export const INDEX_CHANGED = "index-changed";

const CHANGES = ["added", "removed", "moved"];

/**
 * What is not in the index yet, the build that puts it there and how far that is: one strip, shown by the views of
 * curators. It finds builds that others asked for.
 */
export class BuildStrip {
  #follower = null;
  #job = null;
  #asking = false;
  #followedSince = 0;
  #wasServed = false;
  #onChanges;

  /** `onChanges` gets the body of `/v1/changes` each time it was asked for. */
  constructor({ onChanges = () => {} } = {}) {
    this.#onChanges = onChanges;
    byId("build-start").addEventListener("click", () => this.#start());
    byId("build-cancel").addEventListener("click", () => this.#cancel());
    setInterval(() => this.#isSeen && this.look(), LOOK_MILLISECONDS);
  }

  /** Moves into the view that is shown; null hides it. */
  place(view) {
    byId("build").hidden = !view;
    view?.querySelector("[data-build-place]").append(byId("build"));
    if (view) this.look();
  }

  /** Asks for what has changed and for builds; where one is under way, it is followed already. */
  async look() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const [changes, { jobs }] = await Promise.all([getJson("/v1/changes?limit=100"), getJson("/v1/jobs?limit=20")]);
      this.#onChanges(changes);
      if (this.#follower) return;
      const unfinished = jobs.filter((job) => !isFinal(job));
      // Where none is under way, the oldest is next.
      const running = unfinished.find((job) => job.state === "running") ?? unfinished.at(-1);
      if (running) this.#follow(running);
      else this.#rest(changes, jobs[0] ?? null);
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#asking = false;
    }
  }

  get #isSeen() {
    return !byId("build").hidden && !document.hidden;
  }

  async #start() {
    tell(byId("build-error"));
    byId("build-start").disabled = true;
    try {
      this.#follow(await curation.attempt(() => requestJson("POST", "/v1/index-builds", { curator: curation.name })));
      byId("build-cancel").focus();
    } catch (error) {
      this.#complain(error);
    } finally {
      byId("build-start").disabled = false;
    }
  }

  async #cancel() {
    if (byId("build-cancel").getAttribute("aria-disabled") === "true") return;
    tell(byId("build-error"));
    byId("build-cancel").setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
    try {
      await curation.attempt(() => requestJson("POST", `/v1/jobs/${encodeURIComponent(this.#job.job_id)}/cancel`));
      this.#say("Cancelling …");
    } catch (error) {
      byId("build-cancel").removeAttribute("aria-disabled");
      this.#complain(error);
    }
  }

  #follow(job) {
    this.#follower?.stop();
    this.#follower = null;
    this.#job = null;
    this.#followedSince = performance.now();
    byId("build-cancel").removeAttribute("aria-disabled");
    this.#onJob(job);
    if (!isFinal(job)) this.#follower = new JobFollower(job.job_id, (now) => this.#onJob(now), (error) => this.#complain(error));
  }

  #onJob(job) {
    if (this.#job && isFinal(this.#job)) return;
    this.#job = job;
    tell(byId("build-error"));
    const hadFocus = document.activeElement === byId("build-cancel");
    this.#buttons({ cancel: !isFinal(job) });
    byId("build-running").hidden = isFinal(job);
    if (isFinal(job)) this.#end(job, hadFocus);
    else if (job.state === "queued") this.#showQueued(job);
    else this.#showRunning(job);
  }

  #showQueued(job) {
    byId("build-progress").removeAttribute("value");
    byId("build-stage").textContent = "Waiting";
    byId("build-left").textContent = "";
    const words = "The build waits for its turn.";
    // By this clock alone: that of the service may tell another time.
    const waited = performance.now() - this.#followedSince;
    if (waited < PATIENCE_IN_QUEUE_MILLISECONDS) {
      this.#say(words);
      setTimeout(() => this.#job === job && this.#onJob(job), PATIENCE_IN_QUEUE_MILLISECONDS);
    } else {
      this.#say(`${words} Nothing has begun it yet: another build is under way, or no worker runs (\`voucher worker\`).`);
    }
  }

  #showRunning({ progress, requested_by: by }) {
    const bar = byId("build-progress");
    this.#say(by ? `A build for ${by} is under way. The present version goes on answering.` : "A build is under way. The present version goes on answering.");
    if (!progress) {
      bar.removeAttribute("value");
      byId("build-stage").textContent = "Starting";
      byId("build-left").textContent = "";
      return;
    }
    const { stage, done, total, seconds_left: left } = progress;
    if (total > 1) bar.value = done / total;
    else bar.removeAttribute("value");
    byId("build-stage").textContent = stage.charAt(0).toUpperCase() + stage.slice(1);
    const part = total > 1 ? `${done.toLocaleString()} of ${total.toLocaleString()}` : "";
    byId("build-left").textContent = [part, left === null ? "" : `${duration(left)} left`].filter(Boolean).join(", ");
  }

  async #end(job, hadFocus) {
    this.#follower = null;
    this.#announce();
    if (job.state !== "succeeded") {
      await this.look();
      if (hadFocus) this.#focus();
      return;
    }
    const { bundle_id: bundleId, activated, held_back: heldBack } = job.result;
    this.#buttons({ versions: true });
    if (hadFocus) this.#focus();
    if (!activated) {
      this.#say(`Built (${changeWords(job.result)}), and not put into service${heldBack ? `: ${heldBack}` : ""}.`);
      return;
    }
    this.#say(`Built: ${changeWords(job.result)}. The service is taking it up …`);
    const complaint = await followed(bundleId);
    if (this.#job !== job) return;
    this.#say(complaint ? `Built, but the service does not answer from it: ${complaint}` : `In service: ${changeWords(job.result)}.`);
    this.#announce();
  }

  /** No build is under way. */
  #rest({ pending, pending_is_more: isMore, newest_is_served: isServed, since }, last) {
    byId("build-running").hidden = true;
    const failed = last?.state === "failed" && (pending > 0 || last.job_id === this.#job?.job_id);
    // What has just been told stays until something else is changed.
    const isTold = this.#job?.state === "succeeded" && pending === 0 && !(this.#wasServed && !isServed);
    this.#wasServed = isServed;
    if (isTold) return;
    const changes = `${isMore ? "More than " : ""}${counted(pending, "change")}`;
    const verb = pending === 1 && !isMore ? "is" : "are";
    const unserved = since > 0 && !isServed;
    const state = pending
      ? `${changes} ${verb} not in the index yet.${unserved ? " Its newest version is not in service either." : ""}`
      : `Everything that was changed is in the ${unserved ? "newest version of the index, which is not in service" : "index"}.`;
    const wasCancelled = this.#job?.state === "cancelled" && last?.job_id === this.#job.job_id;
    this.#say(`${wasCancelled ? "The build was cancelled. " : ""}${state}`);
    this.#buttons({ start: pending > 0, versions: pending === 0 || unserved });
    tell(byId("build-error"), ...(failed ? withCode(`The build of ${when(last.finished_at ?? last.created_at)} failed: ${last.reason}`) : []));
  }

  /** To the button that is there, or else to what is said. */
  #focus() {
    const buttons = ["build-start", "build-versions"].map(byId);
    (buttons.find((button) => button.offsetParent) ?? byId("build-words")).focus();
  }

  #buttons({ start = false, cancel = false, versions = false }) {
    byId("build-start").hidden = !start || !curation.allowed;
    byId("build-cancel").hidden = !cancel || !curation.allowed;
    byId("build-versions").hidden = !versions;
  }

  /** Told once for each new text, as screen readers read it aloud. */
  #say(words) {
    const target = byId("build-words");
    const parts = element("span", {}, ...withCode(words));
    if (target.textContent !== parts.textContent) target.replaceChildren(parts);
  }

  #complain(error) {
    tell(byId("build-error"), errorWords(error));
  }

  #announce() {
    document.dispatchEvent(new CustomEvent(INDEX_CHANGED));
  }
}

/** “3 sheets added, 1 removed”, or that nothing differs. */
export function changeWords(counts) {
  const parts = CHANGES.filter((name) => counts[name]);
  if (!parts.length) return "no sheet has changed";
  return parts.map((name, index) => `${index ? counts[name].toLocaleString() : counted(counts[name], "sheet")} ${name}`).join(", ");
}
