/** `text` with a capital at its head, for a reason that becomes a sentence of its own. */
export const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
