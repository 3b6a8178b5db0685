// Who is speaking: a customer of the demo, or whoever pastes a token.
import { Api } from "./api.js";
import { remember, remembered } from "./storage.js";

/** The demo's customers and operator token; null when the service runs without a demo (404). */
export async function demo() {
  try {
    const answer = await new Api().demoCustomers();
    return { customers: answer.customers ?? answer, operator: answer.operator?.token ?? answer.operator ?? null };
  } catch (error) {
    if (error.status === 404 || error.status === 403) return null;
    throw error;
  }
}

/** The customer chosen last time, else one who speaks the page's language, else the first. */
export function choose(customers, language) {
  const last = remembered("customer");
  return (
    customers.find((customer) => customer.customer_id === last) ??
    customers.find((customer) => customer.language === language) ??
    customers[0]
  );
}

export const rememberCustomer = (customer) => remember("customer", customer.customer_id);

/** A pasted token lives as long as the tab: it is a password, not a preference. */
export function keptToken(role) {
  try {
    return sessionStorage.getItem(`course-shop:token:${role}`);
  } catch {
    return null;
  }
}

export function keepToken(role, token) {
  try {
    sessionStorage.setItem(`course-shop:token:${role}`, token);
  } catch {
    // The token is asked for again after a reload.
  }
}

/** Ask for a token with the page's sign-in form, until one is accepted by `check`. */
export function askToken(form, role, check) {
  form.hidden = false;
  const field = form.querySelector("input");
  const note = form.querySelector("[role=alert]");
  field.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (!token) return;
      try {
        await check(new Api(token));
      } catch (error) {
        note.textContent = error.message;
        return;
      }
      keepToken(role, token);
      form.hidden = true;
      resolve(token);
    });
  });
}
