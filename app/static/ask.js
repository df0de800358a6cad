import { byId, errorWords, tell } from "./dom.js";
import { SpeciesCombobox } from "./species_combobox.js";

/** A question in a dialog, with the name of who answers and, where it is about one, a species. */
class Question {
  #dialog = byId("ask");
  #species = new SpeciesCombobox("ask-species", { onError: (error) => tell(byId("ask-error"), errorWords(error)) });
  #act = null;
  #answered = null;
  #asksSpecies = false;
  #isActing = false;

  constructor() {
    byId("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#onYes();
    });
    byId("ask-no").addEventListener("click", () => this.#dialog.close());
    // What is under way is waited for: its end has to be told.
    this.#dialog.addEventListener("cancel", (event) => this.#isActing && event.preventDefault());
    this.#dialog.addEventListener("close", () => this.#answered?.(null));
  }

  /**
   * What `act` gave once the question is answered with yes, null for no. `act` gets the chosen species where
   * `asksSpecies`; while it fails the dialog stays open and says why. `words` are text or nodes.
   */
  ask({ title, words, yes, asksSpecies = false, act }) {
    byId("ask-title").textContent = title;
    byId("ask-words").replaceChildren(...words);
    byId("ask-yes").textContent = yes;
    byId("ask-species-field").hidden = !asksSpecies;
    tell(byId("ask-error"));
    this.#species.chosen = null;
    this.#asksSpecies = asksSpecies;
    this.#act = act;
    this.#dialog.showModal();
    byId(asksSpecies ? "ask-species" : "ask-no").focus();
    return new Promise((resolve) => (this.#answered = resolve));
  }

  async #onYes() {
    const species = this.#species.chosen;
    if (this.#asksSpecies && !species) {
      tell(byId("ask-error"), "Choose a species from the list.");
      byId("ask-species").focus();
      return;
    }
    this.#setActing(true);
    try {
      const result = await this.#act(species);
      this.#answered(result);
      this.#answered = null;
      this.#dialog.close();
    } catch (error) {
      tell(byId("ask-error"), errorWords(error));
    } finally {
      this.#setActing(false);
    }
  }

  #setActing(isActing) {
    this.#isActing = isActing;
    byId("ask-yes").disabled = byId("ask-no").disabled = isActing;
  }
}

const question = new Question();

/** Asks in a dialog; see `Question.ask`. */
export function ask(about) {
  return question.ask(about);
}
