// Numbers below 10^15 in English and French words, as num2words spells them.

const ONES = {
  en: "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(" "),
  fr: "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf".split(" "),
};
const TENS = {
  en: "twenty thirty forty fifty sixty seventy eighty ninety".split(" "),
  fr: "vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt".split(" "),
};
const GROUPS = { en: ["", "thousand", "million", "billion", "trillion"], fr: ["", "mille", "million", "milliard", "billion"] };
export const MOST_DIGITS = 15;

/** The groups of three digits of a number that are not 0, highest first: [group, its power of 1,000]. */
function grouped(number) {
  const groups = [];
  for (let power = 0; number > 0; power++, number = Math.floor(number / 1000)) {
    if (number % 1000) groups.unshift([number % 1000, power]);
  }
  return groups;
}

export function english(number) {
  if (!number) return ONES.en[0];
  return grouped(number).reduce((text, [group, power]) => {
    const between = text && (power === 0 && group < 100 ? " and " : ", ");
    return text + between + englishGroup(group) + (power ? ` ${GROUPS.en[power]}` : "");
  }, "");
}

function englishGroup(number) {
  if (number < 20) return ONES.en[number];
  if (number < 100) return TENS.en[Math.floor(number / 10) - 2] + (number % 10 ? `-${ONES.en[number % 10]}` : "");
  const rest = number % 100;
  return `${ONES.en[Math.floor(number / 100)]} hundred${rest ? ` and ${englishGroup(rest)}` : ""}`;
}

export function french(number) {
  if (!number) return ONES.fr[0];
  return grouped(number)
    .map(([group, power]) => {
      if (power === 1) return group === 1 ? "mille" : `${frenchGroup(group, false)} mille`;
      return frenchGroup(group, true) + (power ? ` ${GROUPS.fr[power]}${group > 1 ? "s" : ""}` : "");
    })
    .join(" ");
}

// "cents" and "quatre-vingts" have their s where nothing follows, and before "millions", which is a noun
function frenchGroup(number, isLast) {
  if (number < 20) return ONES.fr[number];
  if (number < 100) {
    const tens = Math.floor(number / 10);
    const rest = number - 10 * (tens === 7 || tens === 9 ? tens - 1 : tens);
    const stem = TENS.fr[tens - 2];
    if (!rest) return stem + (tens === 8 && isLast ? "s" : "");
    return stem + (rest % 10 === 1 && tens < 8 ? " et " : "-") + ONES.fr[rest];
  }
  const [hundreds, rest] = [Math.floor(number / 100), number % 100];
  const stem = hundreds === 1 ? "cent" : `${ONES.fr[hundreds]} cent`;
  return rest ? `${stem} ${frenchGroup(rest, isLast)}` : stem + (hundreds > 1 && isLast ? "s" : "");
}

/** The number that a text names, by digits or by words, or null. */
export function numberOf(text) {
  const digits = text.normalize("NFKC").replace(/(?<=\d)[\s,._'’](?=\d)/gu, "").trim();
  if (/^\d+$/.test(digits)) return digits.replace(/^0+(?=\d)/, "").length > MOST_DIGITS ? null : Number(digits);
  const words = text.toLowerCase().match(/[a-z]+/g) ?? [];
  let [total, group] = [0, 0];
  for (const word of words) {
    const power = GROUPS.en.indexOf(word);
    if (ONES.en.includes(word)) group += ONES.en.indexOf(word);
    else if (TENS.en.includes(word)) group += 10 * (TENS.en.indexOf(word) + 2);
    else if (word === "hundred") group *= 100;
    else if (power > 0) [total, group] = [total + group * 1000 ** power, 0];
    else if (word !== "and") return null;
  }
  const number = total + group;
  // what is put together in another way is no number that these words name
  return words.length && number < 10 ** MOST_DIGITS && english(number) === text.trim().toLowerCase() ? number : null;
}

/** Which words of `text` are also in `reference`, in its order: their longest common subsequence. */
export function common(text, reference) {
  const [ours, theirs] = [text.split(" "), reference.split(" ")];
  const lengths = Array.from({ length: ours.length + 1 }, () => new Uint16Array(theirs.length + 1));
  for (let one = ours.length - 1; one >= 0; one--) {
    for (let two = theirs.length - 1; two >= 0; two--) {
      lengths[one][two] =
        ours[one] === theirs[two] ? lengths[one + 1][two + 1] + 1 : Math.max(lengths[one + 1][two], lengths[one][two + 1]);
    }
  }
  const marks = ours.map(() => false);
  for (let one = 0, two = 0; one < ours.length && two < theirs.length; ) {
    if (ours[one] === theirs[two]) [marks[one], one, two] = [true, one + 1, two + 1];
    else if (lengths[one + 1][two] >= lengths[one][two + 1]) one++;
    else two++;
  }
  return ours.map((word, place) => [word, marks[place]]);
}
