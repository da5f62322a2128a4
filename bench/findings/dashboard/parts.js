// The few helpers that all scripts of the page share.
"use strict";

const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const unfinished = (run) => ["running", "interrupted", "failed", "left"].includes(run.status);
const isLog = (column) => data.logarithmic.includes(column);

function fill(select, options, value, titles = {}) {
  const wanted = options.map((option) => make("option", { value: option, textContent: titles[option] ?? option }));
  const same = wanted.length === select.options.length
    && wanted.every((o, at) => o.value === select.options[at].value && o.textContent === select.options[at].textContent);
  if (!same) select.replaceChildren(...wanted);
  select.value = value;
}

function fillTable(id, head, body) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((textContent, at) => make(tag, { textContent, className: at < 2 ? "name" : "" })));
  byId(id).replaceChildren(make("thead", {}, line(head, "th")), make("tbody", {}, ...body.map((cells) => line(cells, "td"))));
}
