// What furo and MyST leave to the page: headings of the menu say their level, code that scrolls can be reached by keyboard
document.addEventListener("DOMContentLoaded", () => {
    for (const heading of document.querySelectorAll('[role="heading"]:not([aria-level])')) heading.setAttribute("aria-level", "2");
    for (const code of document.querySelectorAll("pre, .cell_output, .table-wrapper")) code.tabIndex = 0;
});
