// The box one types into: Enter sends, Shift+Enter makes a line, an input method's Enter only picks a character.

export class Composer {
  constructor(form, field, { onSend, onEscape = () => {} }) {
    this.field = field;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(onSend);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.send(onSend);
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) onEscape();
    });
    for (const name of ["input", "draft"]) field.addEventListener(name, () => this.grow());
    addEventListener("resize", () => this.grow());
  }

  send(onSend) {
    const text = this.field.value.trim();
    if (text) onSend(text);
  }

  /** As high as the text, up to a third of the window (the style sheet's max-block-size). */
  grow() {
    this.field.style.blockSize = "auto";
    this.field.style.blockSize = `${this.field.scrollHeight + 2}px`;
  }
}
