// Takes the remembered choice of light or dark before anything is drawn; it knows no button.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("muse-theme");
  } catch {
    // Without storage the system's choice holds.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
