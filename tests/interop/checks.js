// How the scripts in Node check and count: one line per check, under the section that is set.
"use strict";

const assert = require("node:assert/strict");

const counts = { passed: 0, failed: 0, skipped: 0, section: "" };

// `want` is a value that `got` equals, or says of `got` whether it is right.
function check(name, got, want) {
  const title = counts.section ? `${counts.section}: ${name}` : name;
  try {
    if (typeof want === "function") assert.ok(want(got), `got ${JSON.stringify(got)}`);
    else assert.deepEqual(got, want);
    counts.passed += 1;
    console.log(`ok    ${title}`);
  } catch (error) {
    counts.failed += 1;
    console.log(`FAIL  ${title}: ${error.message.replaceAll("\n", "\\n")}`);
  }
}

module.exports = { check, counts };
