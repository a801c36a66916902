// A button above each block of code copies it. Without this script the buttons stay hidden.
const told = document.getElementById("told");

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  let outcome = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent.trimEnd());
  } catch {
    // What the browser forbids, the reader can do: the block is selected
    getSelection().selectAllChildren(code);
    outcome = "Selected: press Ctrl+C";
  }
  const label = button.firstChild;
  label.textContent = outcome;
  told.textContent = outcome;
  setTimeout(() => {
    label.textContent = "Copy";
    told.textContent = "";
  }, 3000);
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
