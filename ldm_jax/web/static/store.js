// What survives a reload and a restart of the server: words and numbers in localStorage, pictures
// in IndexedDB, which has room for them.

const KEY = "ldm_jax";

export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

export function remember(part) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...remembered(), ...part }));
  } catch {
    // Private windows may have no storage: then nothing is kept.
  }
}

const PICTURES = "pictures";

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(KEY, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(PICTURES);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function inPictures(mode, run) {
  try {
    const database = await open();
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(PICTURES, mode);
      const request = run(transaction.objectStore(PICTURES));
      transaction.oncomplete = () => { database.close(); resolve(request.result); };
      transaction.onerror = () => { database.close(); reject(transaction.error); };
    });
  } catch {
    return undefined;
  }
}

export const rememberedPicture = (name) => inPictures("readonly", (store) => store.get(name));
export const rememberPicture = (name, value) =>
  inPictures("readwrite", (store) => (value ? store.put(value, name) : store.delete(name)));
