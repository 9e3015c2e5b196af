
"use strict";
// Conveniences; the page is complete without them.

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// Puts a copy button behind everything that is to be typed.
for (const code of document.querySelectorAll("td code, dd code, pre code, .verdict code")) {
  const button = element("button", "copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  (code.closest("pre") || code).after(button);
}

// Offers, above a long table with marks, to show only the rows that need attention.
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows].filter((row) => row.className !== "heading");
  const fine = rows.filter((row) => row.querySelector(".good") && !row.querySelector(".bad, .doubt"));
  if (rows.length < 8 || fine.length === 0 || fine.length === rows.length) continue;
  const label = element("label", ` show only the ${rows.length - fine.length} that need attention`);
  label.className = "filter";
  const box = document.createElement("input");
  box.type = "checkbox";
  box.addEventListener("change", () => {
    for (const row of fine) row.classList.toggle("filtered", box.checked);
  });
  label.prepend(box);
  table.before(label);
}
