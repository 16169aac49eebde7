// Says that something takes long once its form was sent, and keeps it from being sent twice.
for (const form of document.querySelectorAll("form[data-busy]")) {
  form.addEventListener("submit", () => {
    const busy = document.getElementById(form.dataset.busy);
    if (busy) busy.hidden = false;
    // Not at once: the button that was clicked is part of what is sent.
    setTimeout(() => { for (const each of form.querySelectorAll("button")) each.disabled = true; });
  });
}
