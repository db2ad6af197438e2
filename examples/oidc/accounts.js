// The accounts of the provider. A real one would keep hashes.
export const accounts = {
  ann: { password: 'ann-password', name: 'Ann Example', groups: ['staff', 'admin'] },
  bob: { password: 'bob-password', name: 'Bob Example', groups: ['guests'] },
};

/// The code of the second factor, for everyone.
export const CODE = '123456';

export function claimsOf(id) {
  const { name, groups } = accounts[id];
  return { name, groups, preferred_username: id, email: `${id}@example.com`, email_verified: true };
}

/// The account of a form, if everything in it is right.
export function signIn({ login, password, code }, secondFactor) {
  const id = (login ?? '').split('@')[0];
  const right = Object.hasOwn(accounts, id) && accounts[id].password === password;
  return right && (!secondFactor || code === CODE) ? id : null;
}
