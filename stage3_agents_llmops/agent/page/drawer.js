// On narrow screens the rail and the panel are drawers: one open at a time, the rest inert. Escape closes it, and the
// focus returns to where it was opened.

export class Drawers {
  /** `drawers`: [{drawer, opener, narrow}] with a media query for when it is a drawer at all. */
  constructor(drawers) {
    this.open = null;
    this.drawers = drawers;
    for (const one of drawers) {
      one.query = matchMedia(one.narrow);
      one.query.addEventListener("change", () => this.close());
      one.opener.addEventListener("click", () => (this.open === one ? this.close() : this.show(one)));
      one.drawer.querySelector(".drawer-close").addEventListener("click", () => this.close());
    }
    addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || !this.open) return;
        event.stopImmediatePropagation(); // this Escape closes the drawer and stops no answer
        this.close();
      },
      true,
    );
    document.addEventListener("click", (event) => {
      if (this.open && event.target === document.body) this.close();
    });
  }

  show(one) {
    if (!one.query.matches) return;
    this.close();
    this.open = one;
    one.drawer.classList.add("open");
    document.body.classList.add("covered");
    one.opener.setAttribute("aria-expanded", "true");
    for (const other of document.body.children) if (other !== one.drawer) other.inert = true;
    one.drawer.focus();
  }

  close() {
    const one = this.open;
    if (!one) return;
    this.open = null;
    one.drawer.classList.remove("open");
    document.body.classList.remove("covered");
    one.opener.setAttribute("aria-expanded", "false");
    for (const other of document.body.children) other.inert = false;
    one.opener.focus();
  }
}
