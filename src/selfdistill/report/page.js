// Sorts a table by the column whose heading is pressed; without this script the page only lacks that.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => {
        const x = key(a), y = key(b), known = (x !== "") - (y !== "");
        if (known || x === "") return -known;
        const numbers = Number(x) - Number(y);
        const order = Number.isNaN(numbers) ? x.localeCompare(y, undefined, {numeric: true}) : numbers;
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
